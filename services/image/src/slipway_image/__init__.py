"""image: uploads, checked and hashed, kept in an object store."""
