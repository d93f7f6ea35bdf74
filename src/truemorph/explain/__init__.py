"""Where on a picture a class was read: Grad-CAM maps, their profiles, and whether they depend on what was learnt."""
