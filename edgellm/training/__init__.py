"""Fine-tuning of ternary and small ordinary models, and the adapters that come out of it. Only here is torch used."""
