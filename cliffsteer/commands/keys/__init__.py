"""The keys of each verb, as dataclasses: `cliffsteer.commands.schema` hands them to Hydra."""
