"""Models from their files to logits.

`loader`: a model by name, ready to run; `opened`: what is known of it before its weights are read; `names`: what models
are called on a command line; `compatibility`: can this draft guess for that target?
`decoder`: what the engine asks of a decoder; `config`: its shape; `kv_cache`: its keys and values.
`families`: which models there are, and how each is made (`assemble`) of `blocks` (`block_decoder`).
`files`: checkpoints in folders and on the hub; `gguf`: llama.cpp's files; `text`: tokenizers and chat templates;
`eagle3`: heads that draft from a target's features; `inflate`: small models in the shapes of large ones.
"""
