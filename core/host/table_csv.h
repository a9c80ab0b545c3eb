/* Lookup tables as CSV (plugins/tables/NAME.csv), for plugin:table. */
#ifndef NP_HOST_TABLE_CSV_H
#define NP_HOST_TABLE_CSV_H

#include <stddef.h>

#include <lua.h>

/* Pushes a table: the first column's text -> a row, a table with a field for each column that is not empty. Raises "PATH:LINE:COLUMN: why". Keys are
 * texts; of the rest, what is written as a number and without quotes is one. */
void np_table_csv(lua_State *L, const char *path, const char *text, size_t len);

#endif
