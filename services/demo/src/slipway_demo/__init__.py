"""demo: fails and dawdles on demand. What alerts, dashboards and rollouts are tried on, without hurting anybody."""
