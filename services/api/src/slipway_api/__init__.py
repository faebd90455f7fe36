"""api: the public API. Posts are its own; accounts and images it relays to the services behind it."""
