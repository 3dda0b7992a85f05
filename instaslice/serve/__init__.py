"""The serving process: the standard library, gunicorn and prometheus_client, nothing more."""
