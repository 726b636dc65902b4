"""Looking after a store: `verify` reads everything again, `garbage` removes what nothing refers to."""
