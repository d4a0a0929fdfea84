"""How a learning rate or a weight goes over the steps."""


def polynomial(step: int, total: int, power: float = 0.9) -> float:
    """(1 - step/total)^power for step = 0 … total-1, and 0 from `total` on (DeepLab's "poly" policy)."""
    return float(max(0.0, 1.0 - step / total) ** power)
