"""How near a picture is to another. One function a metric; arrays are numpy, levels 0..255. Knows no torch."""
