"""The serving process: follows the registry's aliases and answers the Open Inference Protocol."""
