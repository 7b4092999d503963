"""The portal in a browser: `app.create_app` puts it together from sign-in and the account page."""
