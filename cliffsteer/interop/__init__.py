"""Exchange with other software: reference weights, PhiFlow fields."""
