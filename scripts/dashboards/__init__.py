"""The platform's dashboards in Grafana's own types; scripts/generate_dashboards.py writes them."""
