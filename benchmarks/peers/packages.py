"""Imports of packages that need a setting first."""

from __future__ import annotations

from typing import Any


def exponax_and_jax() -> tuple[Any, Any]:
    """The packages, JAX in float64."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import exponax

    return exponax, jax
