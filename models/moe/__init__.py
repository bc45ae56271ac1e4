"""Router, experts and balance of the sparse mixture of experts."""
