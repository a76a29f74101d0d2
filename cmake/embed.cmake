# cmake -D OUTPUT=file.cpp -D NAME=identifier -D NAMESPACE=a::b "-D FILES=one;two" -P embed.cmake
# Writes the files' text as an array of SourceFile (src/core/cuda/compiler.h), in this order. Folders are left out of the
# names that they include each other by.
set(text "// Made by cmake/embed.cmake.\n#include \"core/cuda/compiler.h\"\n\nnamespace ${NAMESPACE} {\n\n")
string(APPEND text "extern const lamella::detail::cuda::SourceFile ${NAME}[] = {\n")
foreach(file IN LISTS FILES)
  file(READ ${file} content)
  string(REGEX REPLACE "#include \"[^\"\n]*/" "#include \"" content "${content}")
  cmake_path(GET file FILENAME name)
  string(APPEND text "    {\"${name}\", R\"__lamella(${content})__lamella\"},\n")
endforeach()
string(APPEND text "};\n\n}  // namespace ${NAMESPACE}\n")
file(WRITE ${OUTPUT} "${text}")
