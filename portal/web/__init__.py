"""The portal in a browser: `app.create_app` puts it together from its pages and the REST API."""
