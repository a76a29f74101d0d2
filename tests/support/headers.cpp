// Empty: the headers that all tests share are precompiled for it.
