"""Does a gate that looks around help? The experiments on Sparta (`lib.activations.sparta`) and its controls."""
