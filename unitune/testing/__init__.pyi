# ruff: noqa: I001 - names of one module stand together
from .contract import BackendContract as BackendContract
from .fake import FakeBackend as FakeBackend
from .fake_vendor import Answers as Answers, BatchScript as BatchScript, Script as Script
from .vendor_setup import VendorSetup as VendorSetup
