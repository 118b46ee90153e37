"""A bundle and a few labelled frames: what they add (``study``), a site's profile (``site``)."""
