# cmake -DIN=file -DOUT=file.c -DNAME=symbol -P embed.cmake: a text file as a zero-terminated C array.
file(READ ${IN} text HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${text}")
file(WRITE ${OUT} "extern const char ${NAME}[];\nconst char ${NAME}[] = {${bytes}0};\n")
