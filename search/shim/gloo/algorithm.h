// Nothing of this header of Gloo is used; see gloo/README.md.
#pragma once
