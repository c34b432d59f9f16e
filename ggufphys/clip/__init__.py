"""mmproj files: the encoder of images or sound that stands before a multimodal model, called clip in llama.cpp.

`hparams` reads what the file says, `tensors` which of its tensors are loaded, `builder` and `models` build its graph.
"""
