package policy
import ("testing";"time";"bytes";"encoding/binary";"runtime";"github.com/wpfs/wpfs/fs")
func TestAdhoc(t *testing.T){
 var m0,m1 runtime.MemStats; runtime.GC(); runtime.ReadMemStats(&m0)
 x,_:=newIndex()
 st:=time.Now()
 for i:=range 1_000_000 { var h fs.Hash; binary.LittleEndian.PutUint64(h[:],uint64(i)*0x9e3779b97f4a7c15); x.Add(h,4096,false)}
 t.Logf("add 1M %v", time.Since(st))
 runtime.GC(); runtime.ReadMemStats(&m1); t.Logf("%.1f B/chunk", float64(m1.HeapAlloc-m0.HeapAlloc)/1e6)
 var b bytes.Buffer; st=time.Now(); x.Save(&b); t.Logf("save %v %d", time.Since(st), b.Len())
 st=time.Now(); var all []Record; if err:=Load(&b,func(r Record){all=append(all,r)});err!=nil{t.Fatal(err)}
 y,_:=newIndex(); y.Restore(all); t.Logf("load+restore %v", time.Since(st))
 st=time.Now(); x.Age(); t.Logf("age %v", time.Since(st))
}
