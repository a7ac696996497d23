"""`python -m counterpoint`: the same as the command `counterpoint`."""

from counterpoint.cli import main

raise SystemExit(main())
