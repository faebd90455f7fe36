"""What every slipway service shares. No domain code: nothing here knows users, posts or images."""
