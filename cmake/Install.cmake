# What `cmake --install` lays out; filled by the rooms that have something to install.
