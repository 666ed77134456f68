"""The Basel Face Model as Deep3DFaceRecon and SadTalker use it: the model, its coefficients, alignment, and the network."""
