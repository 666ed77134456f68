"""FaceTalk: codes of speaking faces from sound, and faces from codes."""
