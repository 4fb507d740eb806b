"""The language of the product: knobs, specs, events, techniques, plans. Standard library only; frozen; JSON round trip."""
