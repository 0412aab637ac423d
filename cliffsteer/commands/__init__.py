"""The verbs of the command line, one module each, with a function ``run(config)`` that takes the composed config."""
