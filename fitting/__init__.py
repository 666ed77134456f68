"""Head models (FLAME, BFM, NPHM), cameras and spaces, nearest points."""
