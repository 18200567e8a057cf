"""The embedded model: a small, real, deterministic model inside evalkit's own process.

It reads a prompt as any model would (`reading`), and answers by similarity: labels
(`classify`), fields (`extract`), sentences of documents (`answer`), grades (`grade`).
It knows nothing of features, golden sets or case ids, and opens no connection.
"""
