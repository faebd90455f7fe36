"""auth: accounts and access tokens."""
