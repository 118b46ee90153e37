"""The service on several machines, assembled from the same parts by Ray Serve.

`service.cluster.application` is what `serve run` is given. The base install has no Ray, and nothing
outside of this package imports it.
"""
