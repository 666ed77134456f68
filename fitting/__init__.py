"""Head models, cameras, rendering, point clouds and the fits. Nothing is here yet; it builds on ``prep``."""
