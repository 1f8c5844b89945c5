#include <ckpt.h>
#include <stdio.h>

int main(void)
{
    int how = ckpt_save("library.ckpt");
    puts(how == 0 ? "saved" : how == 1 ? "here again" : "failed");
    return how < 0;
}
