"""Many pictures with one loaded pipeline. One picture is a batch of one."""
