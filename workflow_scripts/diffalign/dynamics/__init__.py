"""When shapes, textures, edges and colours appear on the way from noise to an image, and which layers make them."""
