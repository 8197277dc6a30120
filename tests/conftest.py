"""What holds for every test."""

from hypothesis import HealthCheck, settings

# How fast inputs are made says something about a busy machine, not about the product.
settings.register_profile("busy machines", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machines")
