"""Lets the tests of this pack import what writes their files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
