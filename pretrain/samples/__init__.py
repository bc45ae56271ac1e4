"""Sample number → two masked views on the device: reading order, boxes, draws, masks."""
