#!/bin/sh
# A plugin library shows TensorRT its two entry points and nothing else, and needs neither TensorRT nor CUDA's runtime.
shown=$(nm --dynamic --defined-only --format=posix "$1" | cut -d ' ' -f 1 | sort | xargs)
needed=$(readelf --dynamic "$1" | grep NEEDED | grep -E 'nvinfer|cudart')
if [ "$shown" != "getCreators setLoggerFinder" ] || [ -n "$needed" ]; then
  echo "$1 shows \"$shown\", expected \"getCreators setLoggerFinder\"; needed, and should not be: \"$needed\"" >&2
  exit 1
fi
