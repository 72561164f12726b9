#include <cassert>
#include <vector>
extern "C" int decode(int size) { assert(size > 0); return size; }
extern "C" int lookup(int i) { std::vector<int> v(3); return v.at(i); }
extern "C" void simd() { __builtin_trap(); }
