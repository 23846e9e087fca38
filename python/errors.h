// How penstock's errors arrive in Python: as penstock.BadInput and penstock.RunFailed, which penstock/errors.py
// defines.
#pragma once

namespace penstock::python {

// For the extension module that is being initialised.
void register_errors();

}  // namespace penstock::python
