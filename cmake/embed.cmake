# cmake -D OUTPUT=file.cpp -D NAME=identifier -D NAMESPACE=a::b "-D FILES=one;two" -P embed.cmake
# Writes the files' text as a span of SourceFile (src/core/cuda/compiler.h), in this order. Folders are left out of the
# names that they include each other by.
set(text "// Made by cmake/embed.cmake.\n#include \"core/cuda/compiler.h\"\n\nnamespace ${NAMESPACE} {\n\n")
string(APPEND text "namespace {\nconstexpr lamella::detail::cuda::SourceFile kFiles[] = {\n")
foreach(file IN LISTS FILES)
  file(READ ${file} content)
  string(REGEX REPLACE "#include \"[^\"\n]*/" "#include \"" content "${content}")
  cmake_path(GET file FILENAME name)
  string(APPEND text "    {\"${name}\", R\"__lamella(${content})__lamella\"},\n")
endforeach()
string(APPEND text "};\n}  // namespace\n\n")
string(APPEND text "extern const std::span<const lamella::detail::cuda::SourceFile> ${NAME};\n")
string(APPEND text "constinit const std::span<const lamella::detail::cuda::SourceFile> ${NAME}{kFiles};\n")
string(APPEND text "\n}  // namespace ${NAMESPACE}\n")
file(WRITE ${OUTPUT} "${text}")
