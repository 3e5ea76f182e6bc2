"""How representations agree with people: odd-one-out choices, probes, reductions, regression onto human dimensions."""
