# ruff: noqa: I001 - names of one module stand together
from unitune.ledger.model_versions import AliasMove as AliasMove, ModelVersion as ModelVersion
from unitune.registry.verification import Verification as Verification, verify as verify
from unitune.registry.versions import (
    RegisteredModel as RegisteredModel,
    find_registered_model as find_registered_model,
    promote as promote,
    register as register,
    registered_models as registered_models,
    remove_alias as remove_alias,
    rollback as rollback,
)
