"""What tests of services need: a real Postgres, a real MinIO, services on real sockets, tokens and images to order."""
