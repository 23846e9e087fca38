// Host memory of tensors that knows its own size, so that counting it takes no table.
#pragma once

namespace penstock {

// libtorch's own allocator tells a thread's meter of each tensor through one table behind one lock for all threads,
// twice for each tensor. From the first call on, tensors get memory that holds its size in front of it. What was
// allocated before is freed as before. Any thread may call it.
void install_counted_allocator();

}  // namespace penstock
