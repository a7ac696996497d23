"""What an author of a pack tests with: checks that raise AssertionError, for the tests of the pack."""
